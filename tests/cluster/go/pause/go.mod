module drivetrain.dev/cluster/pause

go 1.26
