"""How good a frozen encoder is: features, a linear probe and nearest neighbours, one protocol for every encoder."""
