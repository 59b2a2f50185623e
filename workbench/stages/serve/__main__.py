"""``python -m workbench.stages.serve step.json``."""

from workbench.app.stage_host import main
from workbench.stages.serve.spec import SPEC
from workbench.stages.serve.stage import run

if __name__ == "__main__":
    main(SPEC, run)
