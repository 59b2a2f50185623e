# The quick way of hook_client.py: hands a push to the policy process that is already there, and prints its answer. Perl
# starts in two milliseconds where Python takes eight; it comes with git. Returns when there is no such process: the hook
# then runs hook_client.py, which starts one. The conversation is described in workbench/hub/wire.py. No `use`: each costs a millisecond.

socket(my $policy, 1, 1, 0) or return 0;    # AF_UNIX, SOCK_STREAM
connect($policy, pack('S a*', 1, 'workbench/policy.sock')) or return 0;
my $failed = 'workbench: the policy process of this hub does not answer, so the push is refused. Run `workbench doctor` there.';
local $SIG{ALRM} = sub { syswrite STDOUT, "$failed\n"; exit 1 };
alarm 10;
my $updates = do { local $/; <STDIN> } // '';
my @options = map { $ENV{"GIT_PUSH_OPTION_$_"} } 0 .. ($ENV{GIT_PUSH_OPTION_COUNT} || 0) - 1;
my ($pusher) = grep { $_ } @ENV{qw(WORKBENCH_PUSHER REMOTE_USER GL_USERNAME USER LOGNAME)}, "uid-$<";
my $request = join "\0", 1, 'pre-receive', getppid, $pusher, $ENV{GIT_QUARANTINE_PATH} // '', join("\n", @options), $updates;
while (length $request) { substr $request, 0, (syswrite($policy, $request) // last), '' }
shutdown $policy, 1;
my ($answer, $verdict) = ('', '');
while (sysread $policy, $answer, 65536, length $answer) {
    alarm 10;    # anything that comes, also "still working", is a sign of life
    $verdict = $1 if $answer =~ s/\0([01])\z//;
    my $rest = $answer =~ s/\0\z// ? "\0" : '';    # the verdict follows the mark
    (my $text = $answer) =~ tr/\1//d;
    syswrite STDOUT, $text if length $text;
    $answer = $rest;
}
syswrite STDOUT, "$failed\n" if $verdict eq '';
exit($verdict eq '0' ? 0 : 1);
