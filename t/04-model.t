# The models of the hand-off and of the permits (t/model): spin finds no error in any interleaving,
# and finds each bug that is planted in a model.

use strict;
use warnings;
use Cwd qw(getcwd);
use File::Spec::Functions qw(rel2abs tmpdir);
use File::Temp ();
use List::Util qw(sum);
use Test::More;

plan skip_all => 'once is enough' if $ENV{PGPOOL_SANITIZE};

# Each planted bug, with the complaint that the checker must make.
my $stuck  = qr/invalid end state/;
my $broken = qr/assertion violated/;
my @handoff_bug = (
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

# The macros with which the checker finds a bug of the permits: the number of permits.
my %one  = (with => [qw(-DPERMITS=1)]);
my %two  = (with => [qw(-DPERMITS=2)]);
my @permits_bug = (
    [COUNT_FIRST  => $broken, %two],
    [GIVE_EARLY   => $broken, %two],
    [FREE_EARLY   => $broken, %two],
    [DEAD_WAITS   => $broken, %two],
    [DEAD_SILENT  => $broken, %two],
    [TWO_GIVERS   => $broken, %two],
    [LATE_WAIT    => $broken, %two],
    [GIVE_SILENT  => $broken, %one],
    [TAKE_SILENT  => $broken, %two],
    [TAKEN_SILENT => $broken, %two],
    ([END_SILENT => $broken, %one]) x !!$ENV{PGPOOL_MODEL_ALL},
    [OUT_OF_TURN  => $broken, %one],
    [IDLE_KEPT    => $broken, %one],
);

# The checker's output for a model with these macros.  If a model asserts its end itself
# (ends_itself), the checker does not complain of processes that never end.
sub checked {
    my ($model, @define) = @_;
    my $file = rel2abs("t/model/$model->{name}.pml");
    my $before = getcwd;
    my $dir = File::Temp->newdir('model-XXXXXX', DIR => $ENV{TESTDIR} || tmpdir);
    my $ends = $model->{ends_itself} ? '-E' : '';
    chdir $dir or die "$dir: $!";
    my $said = qx{(spin -a @define $file && cc -O1 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan $ends -m1000000) 2>&1};
    chdir $before or die "$before: $!";
    return $said;
}

sub planted {
    my ($model) = @_;
    open my $in, '<', "t/model/$model->{name}.pml" or die "$model->{name}: $!";
    my %planted = map { $_ => 1 } map { /\bBUG_(\w+)/g } <$in>;
    return sort keys %planted;
}

# How many statements of the model the search has not reached.
sub unreached {
    my ($said) = @_;
    return sum($said =~ /\((\d+) of \d+ states\)/g);
}

my @model = (
    {
        name => 'handoff',
        bug  => \@handoff_bug,
        with => [qw(-DBORROWERS=2 -DSLOTS=2)],
        size => {
            'three borrowers of one slot' => [],
            'two borrowers of two slots'  => [qw(-DBORROWERS=2 -DSLOTS=2)],
        },
    },
    {
        name        => 'permits',
        ends_itself => 1,
        slow        => { $ENV{PGPOOL_MODEL_ALL} ? () : (END_SILENT => 1) },
        never_reached => 6, # the ends of processes, and sides of asserts
        bug         => \@permits_bug,
        # Some three million states, which take minutes.
        size => $ENV{PGPOOL_MODEL_ALL} ? { 'three children with one permit' => [] } : {},
    },
);

for my $model (@model) {
    for my $name (sort keys %{ $model->{size} }) {
        subtest "$model->{name}: $name" => sub {
            my $said = checked($model, @{ $model->{size}{$name} });
            like $said, qr/errors: 0$/m, 'no error' or diag $said;
            unlike $said, qr/search depth too small|out of memory/, '... in all interleavings';
            is unreached($said), $model->{never_reached} // 0, '... which reach every statement';
        };
    }
    is_deeply [sort map { $_->[0] } @{ $model->{bug} }], [grep { !$model->{slow}{$_} } planted($model)], "$model->{name}: each planted bug is in the list";
    for (@{ $model->{bug} }) {
        my ($name, $complaint, %option) = @$_;
        like checked($model, @{ $option{with} // $model->{with} }, "-DBUG_$name"), qr/pan:1: $complaint/, "finds BUG_$name";
    }
}

done_testing;
