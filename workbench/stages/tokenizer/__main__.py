"""The entrance of the tokenizer stage as a process."""

from workbench.app.stage_host import main
from workbench.stages.tokenizer.spec import SPEC
from workbench.stages.tokenizer.stage import run

if __name__ == "__main__":
    main(SPEC, run)
