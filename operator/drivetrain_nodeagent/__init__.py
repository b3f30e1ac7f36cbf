"""On each node, as root: reads what its GPUs and processors draw and how hot they are, and sets the GPUs' power limits.

The only privileged part of Drivetrain, and off by default. It is told limits by a ConfigMap, and knows nothing of
jobs. What it changed is written down before it is changed, and given back when the pod that it was for is gone, when
nobody renews it, and when it dies itself: `guardian` sees to that.
"""
