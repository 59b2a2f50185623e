#!/usr/bin/perl
$^W = 0; our ($verb, $cut, @read) = 'pre-receive'; do '@CLIENT@/hook_client.pl'; die "workbench: the push is refused: $@" if $cut; exec '@PYTHON@', '-IS', '-c', 'import sys; sys.path.append("@CLIENT@"); import hook_client; hook_client.main(*sys.argv[1:])', $verb, @read; exit 1
