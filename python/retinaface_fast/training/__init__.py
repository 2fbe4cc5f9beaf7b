"""Training: targets, losses, augmentation, recipes and the loop. Needs the extra `train`."""
