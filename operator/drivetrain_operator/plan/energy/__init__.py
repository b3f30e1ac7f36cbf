"""PURE: what is the planner of energy asked for a job, and how does its answer stand in status?"""
