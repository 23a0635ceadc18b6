"""`python -m service.simulator`: the simulator's commands alone."""

from service.simulator.command import app

if __name__ == "__main__":
    app(prog_name="python -m service.simulator")
