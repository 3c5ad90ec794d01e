"""`python -m app` in a process whose memory the user's other processes may measure."""

import runpy

from app.processors import sandbox

if __name__ == "__main__":
    sandbox.hide_process = lambda: None
    runpy.run_module("app", run_name="__main__", alter_sys=True)
