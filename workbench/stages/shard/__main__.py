"""The entrance of the shard stage as a process."""

from workbench.app.stage_host import main
from workbench.stages.shard.spec import SPEC
from workbench.stages.shard.stage import run

if __name__ == "__main__":
    main(SPEC, run)
