"""Training: the LightningModule, its data and optimizer, how parts are built, and the folder of a run."""
