"""Every boundary of the house, as protocols. Nothing here does anything.

``store`` the Git repository · ``sandbox`` untrusted code · ``fetch`` source from elsewhere · ``inference`` a model that
answers · ``work`` what a stage is given. The values they exchange are in ``domain`` or beside the protocol.
"""
