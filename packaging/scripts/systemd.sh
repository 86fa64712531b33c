systemd_runs() { [ -d /run/systemd/system ]; }
