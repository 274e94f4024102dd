/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapxml: <domainsnapshot> with <mirror>, and the XML made from it for
 * libvirt, which knows no <mirror>. Pure.
 *
 *   <disk name='vda' snapshot='external'>
 *     <driver type='qcow2'/>
 *     <source file='/path1/old.migrate'/>
 *     <mirror file='/path2/new.qcow2' format='qcow2'/>
 *   </disk>
 *
 * or, for the last line, <mirror type='file' format='qcow2'> with a nested
 * <source file='/path2/new.qcow2'/>.
 */

#include "domxml.h"
#include "snapspec.h"

G_BEGIN_DECLS

#define VMR_SNAPXML_MAX_SIZE (256 * 1024)
#define VMR_SNAPXML_MAX_DEPTH 16

/* Whether @xml has a <mirror> for any disk; nothing else of it is judged.
 * Errors: INVALID_SPEC (VIR_ERR_XML_ERROR): no well-formed <domainsnapshot>,
 * too large, too deep, a DTD. */
gboolean vmr_snapxml_has_mirror(const char *xml, gboolean *has,
                                GError **error);

/* Parse a mirrored snapshot's @xml strictly: what is not known is an error.
 * Disks with snapshot='no' are dropped; every other one must have a mirror.
 * Errors: INVALID_SPEC, all findings in one text, joined by "; ". */
VmrSnapSpec *vmr_snapxml_parse(const char *xml, GError **error);

/* @spec as <domainsnapshot> with <mirror>; owned. */
char *vmr_snapxml_format(const VmrSnapSpec *spec);

/* @spec as libvirt is to see it: no <mirror>, always a driver, and
 * snapshot='no' for each excluded disk and each of @others (NULL-terminated
 * target names, or NULL). Each overlay is tuned as the disk's top is in @live
 * (NULL: not at all); owned. */
char *vmr_snapxml_format_libvirt(const VmrSnapSpec *spec,
                                 const char *const *others,
                                 const VmrDomXml *live);

/* libvirt's @snapshot_xml with a <mirror file= format=> in each <disk> that
 * @disks (of VmrDiskSpec) has a mirror for, matched by name; owned. */
char *vmr_snapxml_add_mirrors(const char *snapshot_xml, const GPtrArray *disks,
                              GError **error);

G_END_DECLS
