"""``python -m workbench.stages.crawl step.json``."""

from workbench.app.stage_host import main
from workbench.stages.crawl.spec import SPEC
from workbench.stages.crawl.stage import run

if __name__ == "__main__":
    main(SPEC, run)
