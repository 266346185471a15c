#!/usr/bin/perl

# conf/prometheus.yml and its alerts are YAML of the right form, and use metrics that exist.

use PgPoolTest;
use JSON::PP;

# Read a YAML file with /usr/bin/python3, whose modules t/setup installs.
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
like $page->{content}, qr/^pgpool_info\{version="[\d.]+",libpq="\d+\.\d+"\} 1$/m, '... and has the versions';
my %metric = map { $_ => 1 } $page->{content} =~ /^(pgpool_\w+)/mg;

is_deeply yaml('conf/prometheus.yml')->{rule_files}, ['prometheus-alerts.yml'], 'it names the file of alerts beside it';
my @rule = map { @{ $_->{rules} } } @{ yaml('conf/prometheus-alerts.yml')->{groups} };
cmp_ok scalar @rule, '>', 3, 'there are alerts';
for my $rule (@rule) {
    my @asked = $rule->{expr} =~ /(pgpool_\w+)/g;
    is_deeply [grep { !$metric{$_} } @asked], [], "$rule->{alert} uses metrics that exist";
    like $rule->{for}, qr/\A\d+m\z/, '... for a number of minutes';
    ok $rule->{labels}{severity} && $rule->{annotations}{summary}, '... with severity and summary';
}
$httpd->stop;
done_testing;
