"""Convolutional teachers of the published distillation recipes."""
