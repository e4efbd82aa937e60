# What guest tests with a TPM share: "load tpm2".
# shellcheck shell=bash

# extend_pcr_7: a measurement by the kernel's device, TPM2_PCR_Extend without a password.
extend_pcr_7()
{
	{
		printf '\x80\x02\x00\x00\x00\x41\x00\x00\x01\x82\x00\x00\x00\x07'
		printf '\x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x00\x00\x00'
		printf '\x00\x00\x00\x01\x00\x0b0123456789abcdef0123456789abcdef'
	} >/root/extend
	exec 9<>/dev/tpmrm0
	cat /root/extend >&9
	head -c 19 <&9 >/dev/null
	exec 9>&-
}
