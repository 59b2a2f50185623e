"""``python -m workbench.stages.package step.json``."""

from workbench.app.stage_host import main
from workbench.stages.package.spec import SPEC
from workbench.stages.package.stage import run

if __name__ == "__main__":
    main(SPEC, run)
