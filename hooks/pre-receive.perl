#!/usr/bin/perl
$verb = 'pre-receive'; do '@CLIENT@/hook_client.pl'; exec '@PYTHON@', '-IS', '-c', 'import sys; sys.path.append("@CLIENT@"); import hook_client; hook_client.main(*sys.argv[1:])', $verb, @read; exit 1
