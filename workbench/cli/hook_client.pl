# The quick way of hook_client.py: hands a push to the policy process that is already there, and prints its answer. Perl
# starts in two milliseconds where Python takes eight; it comes with git. Returns when there is no such process, or it
# ended while it was asked: the hook then runs hook_client.py, which starts one, with what was read from git (@read).
# The conversation is described in workbench/hub/wire.py. No `use`, no regular expression: each costs a pusher time.

our ($verb, $cut, @read);                   # $cut: git has been read from, but not to the end, so nobody can go on
socket(my $policy, 1, 1, 0) or return 0;    # AF_UNIX, SOCK_STREAM
connect($policy, pack('S a*', 1, 'workbench/policy.sock')) or return 0;
binmode $_ for *STDIN, *STDOUT, *STDERR, $policy;    # bytes, whatever PERL_UNICODE and PERLIO say

sub packets {                               # of git, until a flush packet
    my @lines;
    while (read(STDIN, my $size, 4) == 4) {
        last if hex $size < 4;
        read STDIN, my $line, hex($size) - 4;
        chomp $line;
        push @lines, $line;
    }
    return @lines;
}
sub packet { return sprintf "%04x%s\n", 5 + length $_[0], $_[0] }
sub put {                                   # false when not all of it could be written
    my ($to, $data) = @_;
    while (length $data) { substr $data, 0, (syswrite($to, $data) // return 0), '' }
    return 1;
}

my ($updates, @options);
$cut = 1;
if ($verb eq 'proc-receive') {
    my ($hello) = packets();
    my $wants = index($hello, 'push-options', index $hello, "\0") >= 0;
    put(*STDOUT, packet('version=1' . ($wants ? "\0push-options" : '')) . '0000') or exit 1;    # else both wait
    $updates = join "\n", packets();
    @options = packets() if $wants;
}
else {
    $updates = do { local $/; <STDIN> } // '';
    @options = map { $ENV{"GIT_PUSH_OPTION_$_"} } 0 .. ($ENV{GIT_PUSH_OPTION_COUNT} || 0) - 1;
}
@read = ($updates, join "\n", @options);
$cut = 0;

my $failed = 'workbench: the policy process of this hub does not answer, so the push is refused. Run `workbench doctor` there.';
my $lost = 'workbench: the policy process does not answer any more. The push stands; see `workbench runs list` there.';
sub finish {
    my ($accepted) = @_;
    exit !$accepted if $verb ne 'proc-receive';
    my @refs = map { (split ' ', $_, 3)[2] } split "\n", $updates;
    put(*STDOUT, join('', map { packet($accepted ? "ok $_" : "ng $_ refused by the hub, see above") } @refs) . '0000');
    exit 0;
}
my ($answer, $said, $moved) = ('', 0, 0);  # after a NUL comes the verdict; the refs have moved
sub lost {
    put(*STDERR, ($moved ? $lost : $failed) . "\n");
    finish($moved);
}
local $SIG{ALRM} = \&lost;
local $SIG{PIPE} = 'IGNORE';
alarm 10;
my ($pusher) = grep { $_ } @ENV{qw(WORKBENCH_PUSHER REMOTE_USER GL_USERNAME USER LOGNAME)}, "uid-$<";
put($policy, join "\0", 1, $verb, getppid, $pusher, $ENV{GIT_QUARANTINE_PATH} // '', $read[1], $updates);
shutdown $policy, 1;
while (sysread $policy, $answer, 65536, length $answer) {
    alarm 10;    # anything that comes, also "still working", is a sign of life
    my $end = index $answer, "\0";
    my $text = $end < 0 ? $answer : substr $answer, 0, $end;
    $answer = $end < 0 ? '' : substr $answer, $end;
    $moved += $text =~ tr/\2//d;
    $text =~ tr/\1//d;
    $said ||= length $text;
    put(*STDERR, $text);
}
alarm 0;
finish($answer eq "\0000") if length $answer > 1;
return 0 if !$said && !$moved;
lost();
