#!/usr/bin/perl
do '@CLIENT@/hook_client.pl'; exec '@PYTHON@', '-IS', '-c', 'import sys; sys.path.append("@CLIENT@"); import hook_client; hook_client.main("pre-receive")'; exit 1
