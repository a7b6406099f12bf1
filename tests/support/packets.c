#include "tests/support/packets.h"

void
packet(struct mw_buf *b, char cmd, const char *data, size_t n)
{
	uint8_t len[4] = {0, (uint8_t)((n + 1) >> 16), (uint8_t)((n + 1) >> 8),
	                  (uint8_t)(n + 1)};
	mw_buf_put(b, len, 4);
	mw_buf_putc(b, cmd);
	mw_buf_put(b, data, n);
}

void
be32(struct mw_buf *b, uint32_t v)
{
	uint8_t x[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
	                (uint8_t)v};
	mw_buf_put(b, x, 4);
}

void
negotiate(struct mw_buf *b, uint32_t version, uint32_t actions, uint32_t steps)
{
	MW_BUF_AUTO d = {0};
	be32(&d, version);
	be32(&d, actions);
	be32(&d, steps);
	packet(b, 'O', (const char *)d.p, d.n);
}

void
message(struct mw_buf *out, const char *sender, size_t n_sender)
{
	struct mw_buf b = *out;
	P('D', "Mi\0Q1\0{mail_addr}\0a@b.test\0");
	packet(&b, 'M', sender, n_sender);
	P('R', "<c@d.test>\0NOTIFY=NEVER\0");
	P('T', "");
	P('L', "Subject\0 x\0");
	P('L', "X-Fold\0\ta\n b\0");
	P('N', "");
	P('B', "one\r");
	P('B', "\ntwo\r\n");
	P('D', "Ei\0Q2\0");
	P('E', "");
	*out = b;
}
