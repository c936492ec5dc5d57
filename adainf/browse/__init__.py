"""The shard browser, in a terminal and as a web page: reads only the byte ranges that it shows. Does not import torch."""
