"""The Git adapter: objects, refs and the ledger of one repository. See ``repository``."""
