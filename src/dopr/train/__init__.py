"""The drop-in TRL trainer, and everything `dopr train` puts around it. Import its modules only when training."""
