"""The text of a program with a family, for whoever wants to see all of it end.

It starts a process that stays in its group, one with a group of its own, and one that went away from everybody: in a session of its own,
its parent gone. Then it writes their pids and its own, as one line, into the file ``pids`` of its folder.
"""

FAMILY = """
import os, subprocess, sys, time
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
asleep = [sys.executable, "-I", "-S", "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
near = subprocess.Popen(asleep, **quiet).pid
apart = subprocess.Popen(asleep, process_group=0, **quiet).pid
daemon = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdin=-3, stdout=-3, stderr=-3).pid)"
away = int(subprocess.run([sys.executable, "-I", "-S", "-c", daemon, *asleep], capture_output=True, check=True).stdout)
with open("pids.new", "w") as file:
    file.write(f"{near} {apart} {away} {os.getpid()}\\n")
os.rename("pids.new", "pids")
"""
