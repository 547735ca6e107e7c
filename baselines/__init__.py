"""What is entered: one file a method, and the parts they share (backbones, pair rules, losses, weightings, support frames)."""
