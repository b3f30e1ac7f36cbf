"""Many jobs on the same nodes and watts: who gets what, and which plans hold from now on?"""
