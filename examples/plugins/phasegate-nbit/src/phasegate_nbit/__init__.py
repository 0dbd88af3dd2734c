"""Experts of 2 to 8 bits: the quantizer, its phase of training, and a loss that keeps routers where they were."""
