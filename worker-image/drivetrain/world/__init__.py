"""Where a process stands among others: alone, under torchrun, or in a TrainingJob with changing membership."""
