"""The work of scripts that are more than one call: `launch.NAME` checks its flags, then imports `launch.jobs.NAME`."""
