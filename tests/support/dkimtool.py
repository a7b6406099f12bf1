"""dkimtool - DKIM signing and verifying with a key made here (python3-dkim, no DNS)."""

import base64
import subprocess

import dkim

DOMAIN, SELECTOR = "signer.test", "rig"
_key = subprocess.run(["openssl", "genrsa", "-traditional", "1024"], capture_output=True,
		      check=True).stdout
_der = subprocess.run(["openssl", "rsa", "-pubout", "-outform", "DER"], input=_key,
		      capture_output=True, check=True).stdout
_record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(_der)


def _dns(name, timeout=5):
	want = f"{SELECTOR}._domainkey.{DOMAIN}."
	return _record if name.decode().rstrip(".") + "." == want else None


def sign(data, mode):
	"""data (CRLF) with a DKIM-Signature in front; mode: relaxed or simple, both parts."""
	sig = dkim.sign(data, SELECTOR.encode(), DOMAIN.encode(), _key,
			canonicalize=(mode.encode(), mode.encode()),
			include_headers=[b"from", b"to", b"subject", b"date", b"message-id"])
	return sig + data


def verify(data):
	"""Does our signature (the first) verify?"""
	try:
		return dkim.DKIM(data).verify(dnsfunc=_dns)
	except (dkim.DKIMException, ValueError, IndexError):
		return False
