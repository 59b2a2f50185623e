"""workbench: a Git-native, version-controlled workbench for local code agents."""

__version__ = "0.1.0"
