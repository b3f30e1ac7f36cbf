"""Where checkpoints and results go so that they outlive the pod (`spec.storage`). Nothing here needs torch."""
