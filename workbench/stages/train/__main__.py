"""The entrance of the train stage as a process."""

from workbench.app.stage_host import main
from workbench.stages.train.spec import SPEC
from workbench.stages.train.stage import run

if __name__ == "__main__":
    main(SPEC, run)
