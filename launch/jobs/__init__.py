"""What the scripts do, one module each: `launch.NAME` defines and checks its flags, then imports `launch.jobs.NAME`."""
