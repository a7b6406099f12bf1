#include "journal/base/id.h"

#include "journal/base/err.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

void
mw_random(void *p, size_t n)
{
	uint8_t *q = p;
	while (n) {
		ssize_t r = getrandom(q, n, 0);
		if (r < 0 && errno == EINTR)
			continue;
		mw_assert(r > 0);
		q += r;
		n -= (size_t)r;
	}
}

void
mw_id_new(uint8_t id[MW_ID_LEN])
{
	mw_random(id, MW_ID_LEN);
}

void
mw_id_text(char *out, const uint8_t id[MW_ID_LEN])
{
	for (unsigned i = 0; i < MW_ID_TEXT; i++) {
		unsigned v = 0;
		for (unsigned b = 0; b < 5; b++) {
			unsigned bit = i * 5 + b;
			unsigned byte = bit < 128 ? id[bit / 8] : 0;
			unsigned x = byte >> (7 - bit % 8) & 1;
			v = v << 1 | x;
		}
		out[i] = alphabet[v];
	}
	out[MW_ID_TEXT] = '\0';
}

bool
mw_id_parse(const char *text, uint8_t ret_id[MW_ID_LEN], unsigned *ret_bits)
{
	uint8_t id[MW_ID_LEN] = {0};
	size_t n = strlen(text);
	if (n < MW_ID_MIN || n > MW_ID_TEXT)
		return false;
	for (unsigned i = 0; i < n; i++) {
		char c = text[i];
		if (c >= 'A' && c <= 'Z')
			c = (char)(c + ('a' - 'A'));
		if (c == 'i' || c == 'l')
			c = '1';
		if (c == 'o')
			c = '0';
		const char *q = c ? strchr(alphabet, c) : NULL;
		if (!q)
			return false;
		unsigned v = (unsigned)(q - alphabet);
		for (unsigned b = 0; b < 5; b++) {
			unsigned bit = i * 5 + b;
			if (!(v >> (4 - b) & 1))
				continue;
			if (bit >= 128)
				return false; /* 26 characters hold two bits too many */
			id[bit / 8] = (uint8_t)(id[bit / 8] | 1U << (7 - bit % 8));
		}
	}
	memcpy(ret_id, id, MW_ID_LEN);
	*ret_bits = (unsigned)(n * 5 > 128 ? 128 : n * 5);
	return true;
}

bool
mw_id_match(const uint8_t id[MW_ID_LEN], const uint8_t prefix[MW_ID_LEN], unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;
	if (memcmp(id, prefix, whole) != 0)
		return false;
	if (!rest)
		return true;
	uint8_t mask = (uint8_t)(0xff << (8 - rest));
	return (id[whole] & mask) == (prefix[whole] & mask);
}
