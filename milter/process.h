/* process.h - what mailwald asks of the system for itself: all of it best effort.
 *
 * No core files, as many descriptors as it may have, batch scheduling, large pieces of
 * memory back to the system at once. Call before there are threads.
 */
#ifndef MW_MILTER_PROCESS_H
#define MW_MILTER_PROCESS_H

void mw_process_init(void);

#endif
