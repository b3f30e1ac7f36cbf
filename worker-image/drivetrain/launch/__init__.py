"""The launcher, process 1 of every worker pod, and `rank_link`, the end of its link that lives in each rank.

Nothing here imports torch: the launcher must start in well under a second, and must never hold CUDA or big memory.
"""
