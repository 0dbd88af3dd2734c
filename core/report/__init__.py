"""One page per run or study: the answer first, the evidence after."""
