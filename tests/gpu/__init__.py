"""What is claimed of GPUs, checked on one: see check.sh, which runs the modules of this folder one after the other."""
