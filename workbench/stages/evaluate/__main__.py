"""The entrance of the evaluate stage as a process."""

from workbench.app.stage_host import main
from workbench.stages.evaluate.spec import SPEC
from workbench.stages.evaluate.stage import run

if __name__ == "__main__":
    main(SPEC, run)
