#!/usr/bin/env bats
# A boot under systemd with a TPM and no key files: crypttab lines that systemd opens by what we
# enrolled, and a line that qs-util-openall.service opens; what the journal says when the TPM
# does not play.
#
# guest: --systemd --disk virtio:d1:64M --disk virtio:d2:64M --disk virtio:d3:64M
# guest: --tpm @state/tpm
# guest-boots: 2

# shellcheck disable=SC2030,SC2031 # $output is read by functions of the same test
load lib
load tpm2

readonly ID=/dev/disk/by-id/virtio-d

@test "boot 1: three disks that only the TPM opens" {
	local n
	wait_for boot_is_over
	qs-util cryptformat --no-open "${ID}1" "${ID}2" "${ID}3"
	for n in 1 2 3; do qs-util cryptenroll "$ID$n" --tpm2; done
	mv /etc/cryptconf/keys /root/
	qs-util cryptopen "${ID}2" updatecrypttab
	qs-util cryptclose "${ID}2"
	grep -qE "^enc-virtio-d2 .* none +luks$" /etc/crypttab
	sed -i -e '/virtio-d1/s| /etc.*| none tpm2-device=auto|' -e '/virtio-d2/s/luks/luks,noauto/' \
		-e '/virtio-d3/s| /etc.*| - luks|' /etc/crypttab
	systemctl enable qs-util-openall.service
}

@test "boot 2: systemd opens its two lines, qs-util-openall its one, nobody was asked" {
	local n
	wait_for boot_is_over
	journalctl -b -u qs-util-openall.service --no-pager # shown when this fails
	for n in 1 2 3; do [ -b /dev/mapper/enc-virtio-d$n ]; done
	run systemctl --failed --no-legend
	[ -z "$output" ]
	systemctl is-active 'systemd-cryptsetup@enc\x2dvirtio\x2dd1.service'
	systemctl is-active 'systemd-cryptsetup@enc\x2dvirtio\x2dd3.service'
	journalctl -b -u qs-util-openall.service | grep -q 'enc-virtio-d2'
	qs-util cryptclose "${ID}2"
}

# opening_fails_with WORDS: qs-util-openall opens nothing more, and the journal says so.
opening_fails_with()
{
	local since
	since=$(date +%s)
	run ! systemctl restart qs-util-openall.service
	[ ! -e /dev/mapper/enc-virtio-d2 ]
	run -0 journalctl -b -u qs-util-openall.service --since="@$since"
	[[ $output == *virtio-d2*"$1"* ]]
}

@test "boot 2: another state of the machine: the journal names the PCR" {
	extend_pcr_7
	opening_fails_with 'PCR 7 (Secure Boot keys and state) changed'
}

@test "boot 2: a TPM that is not there, or is none: the journal says so" {
	echo 'tpm2_device = "device:/dev/no-tpm"; tpm2_deadline = 2;' >/etc/cryptconf/qs-util.conf
	opening_fails_with 'cannot reach the TPM'
	echo 'tpm2_device = "device:/dev/zero"; tpm2_deadline = 2;' >/etc/cryptconf/qs-util.conf
	opening_fails_with 'TPM'
	cp -r /root/keys /etc/cryptconf/
	systemctl restart qs-util-openall.service
	[ -b /dev/mapper/enc-virtio-d2 ]
}
