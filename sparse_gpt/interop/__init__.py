"""Other people's formats: the reference's checkpoints and hook names, torch.save files, safetensors."""
