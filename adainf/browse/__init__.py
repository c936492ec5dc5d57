"""Looking at shards where they lie, in a terminal and on a web page: nothing is downloaded but what is shown. No torch."""
