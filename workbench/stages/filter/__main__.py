"""``python -m workbench.stages.filter step.json``."""

from workbench.app.stage_host import main
from workbench.stages.filter.spec import SPEC
from workbench.stages.filter.stage import run

if __name__ == "__main__":
    main(SPEC, run)
