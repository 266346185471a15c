#!/usr/bin/perl

# conf/prometheus.yml and its alerts are YAML of the right shape, and ask for metrics that there are.

use PgPoolTest;
use JSON::PP;

# Debian's python, whose modules t/setup installs.
sub yaml {
    my ($file) = @_;
    my $json = qx{/usr/bin/python3 -c 'import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))' $file};
    return $? ? undef : decode_json($json);
}

my $conninfo = conninfo(postgres);
my $httpd = httpd(<<"CONF");
PgPoolConninfo "$conninfo"
<Location /pgpool-status>
  SetHandler pgpool-status
</Location>
CONF

my $scrape = yaml('conf/prometheus.yml')->{scrape_configs}[0];
my $page = $httpd->get("$scrape->{metrics_path}?" . join '&', map { "$_=$scrape->{params}{$_}[0]" } keys %{ $scrape->{params} });
is $page->{status}, 200, 'the page that is scraped';
like $page->{content}, qr/^# EOF\n\z/m, '... is OpenMetrics';
like $page->{content}, qr/^pgpool_info\{version="[\d.]+",libpq="\d+\.\d+"\} 1$/m, '... and tells the versions';
my %metric = map { $_ => 1 } $page->{content} =~ /^(pgpool_\w+)/mg;

is_deeply yaml('conf/prometheus.yml')->{rule_files}, ['prometheus-alerts.yml'], 'the alerts are those beside it';
my @rule = map { @{ $_->{rules} } } @{ yaml('conf/prometheus-alerts.yml')->{groups} };
cmp_ok scalar @rule, '>', 3, 'there are alerts';
for my $rule (@rule) {
    my @asked = $rule->{expr} =~ /(pgpool_\w+)/g;
    is_deeply [grep { !$metric{$_} } @asked], [], "$rule->{alert} asks for what there is";
    like $rule->{for}, qr/\A\d+m\z/, '... for some time';
    ok $rule->{labels}{severity} && $rule->{annotations}{summary}, '... and says what it is';
}
$httpd->stop;
done_testing;
