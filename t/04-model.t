# The model of the hand-off (t/model): all interleavings keep what it promises, and a model with a
# bug planted in it does not.

use strict;
use warnings;
use Cwd qw(getcwd);
use File::Spec::Functions qw(rel2abs tmpdir);
use File::Temp ();
use Test::More;

plan skip_all => 'once is enough' if $ENV{PGPOOL_SANITIZE};

my $model = rel2abs('t/model/handoff.pml');

# Each with the complaint by which the checker must find it.
my $stuck  = qr/invalid end state/;
my $broken = qr/assertion violated/;
my @bug = (
    [LOST_WAKEUP    => $stuck],
    [OWN_TIMEOUT    => $broken],
    [EARLY_LEAVE    => $broken],
    [STOP_FORGETS   => $broken],
    [DOUBLE_HANDOFF => $broken],
    [NO_HANDOFF     => $broken],
    [UNFIT_LOST     => $broken],
    [LATE_RETURN    => $broken],
    [LATE_LOOK      => $broken],
    [LATE_CLEAN     => $broken],
);

# What the checker says of the model with these macros.
sub checked {
    my (@define) = @_;
    my $before = getcwd;
    my $dir = File::Temp->newdir('model-XXXXXX', DIR => $ENV{TESTDIR} || tmpdir);
    chdir $dir or die "$dir: $!";
    my $said = qx{(spin -a @define $model && cc -O1 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m1000000) 2>&1};
    chdir $before or die "$before: $!";
    return $said;
}

sub planted {
    my %planted = map { $_ => 1 } read_model() =~ /\bBUG_(\w+)/g;
    return sort keys %planted;
}

sub read_model {
    open my $in, '<', $model or die "$model: $!";
    local $/;
    return <$in>;
}

my %size = (
    'three borrowers of one slot' => [],
    'two borrowers of two slots'  => [qw(-DBORROWERS=2 -DSLOTS=2)],
);

for my $name (sort keys %size) {
    subtest $name => sub {
        my $said = checked(@{ $size{$name} });
        like $said, qr/errors: 0$/m, 'the model keeps its promises' or diag $said;
        unlike $said, qr/search depth too small|out of memory/, '... in all interleavings';
        my @unreached = $said =~ /\((\d+) of \d+ states\)/g;
        is_deeply \@unreached, [(0) x 5], '... which come to every line of it';
    };
}

is_deeply [sort map { $_->[0] } @bug], [planted()], 'all planted bugs are looked for';
for (@bug) {
    my ($name, $complaint) = @$_;
    like checked(qw(-DBORROWERS=2 -DSLOTS=2), "-DBUG_$name"), qr/pan:1: $complaint/, "finds BUG_$name";
}

done_testing;
