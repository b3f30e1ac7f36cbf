"""How do jobs of other operators become TrainingJobs? All pure but `command`, which reads files and prints.

`sources` knows which kind is read by which file; each of those says what a kind means, `pods` what a pod template does,
`launchers` what a command starts. What is carried over is in the TrainingJob, and everything else is told: `fields`
sees to it that no field is lost without a word.
"""
