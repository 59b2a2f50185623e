"""``python -m workbench.stages.dataset step.json``."""

from workbench.app.stage_host import main
from workbench.stages.dataset.spec import SPEC
from workbench.stages.dataset.stage import run

if __name__ == "__main__":
    main(SPEC, run)
